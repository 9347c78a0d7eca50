// A target in another language: hard concrete gates in JavaScript, over JSON lines.
//
//     l0ref check "command: node javascript.js"
//
// The functions and their arguments are those of l0ref.oracle.interface, the messages those of
// l0ref.oracle.protocol. What is not here is reported as not implemented.
"use strict";

const sigmoid = (t) => (t >= 0 ? 1 / (1 + Math.exp(-t)) : Math.exp(t) / (1 + Math.exp(t)));
const clip = (s) => Math.min(1, Math.max(0, s));
const logOddsActive = (a, p) => a - p.beta * Math.log(-p.gamma / p.zeta); // Eq. 12
const stretch = (s, p) => s * (p.zeta - p.gamma) + p.gamma;
const concrete = (a, u, p) => sigmoid((Math.log(u) - Math.log1p(-u) + a) / p.beta); // Eq. 10

function sampleSlope(a, u, p) {
  const s = concrete(a, u, p);
  const clipped = stretch(s, p) <= 0 || stretch(s, p) >= 1; // not so for NaN, which stays NaN
  return clipped ? 0 : ((p.zeta - p.gamma) * s * (1 - s)) / p.beta;
}

// Arrays come as {dtype, shape, data}; NaN and infinities as strings, which Number() reads but for
// "inf".
const numbers = (array) => array.data.map((v) => Number(String(v).replace("inf", "Infinity")));
const text = (v) => (Number.isFinite(v) ? v : String(v).replace("Infinity", "inf").toLowerCase());

/** Apply f to the numbers of one or more arrays of one shape, and make an array of the results. */
function elementwise(f, first, ...others) {
  const [data, ...more] = [first, ...others].map(numbers);
  const [dtype, round] =
    first.dtype === "float32" ? ["float32", Math.fround] : ["float64", (v) => v];
  const result = data.map((v, i) => text(round(f(v, ...more.map((o) => o[i])))));
  return { dtype, shape: first.shape, data: result };
}

const functions = {
  prob_active: (p) => elementwise((a) => sigmoid(logOddsActive(a, p)), p.log_alpha),
  prob_active_grad: (p) =>
    elementwise((a) => sigmoid(logOddsActive(a, p)) * sigmoid(-logOddsActive(a, p)), p.log_alpha),
  sample: (p) => elementwise((a, u) => clip(stretch(concrete(a, u, p), p)), p.log_alpha, p.u),
  sample_vjp: (p) =>
    elementwise((a, u, dz) => dz * sampleSlope(a, u, p), p.log_alpha, p.u, p.dz),
  test_time: (p) => elementwise((a) => clip(stretch(sigmoid(a), p)), p.log_alpha), // Eq. 13
  expected_l0: (p) => {
    const sizes = numbers(p.group_size);
    const terms = numbers(p.log_alpha).map((a, i) => sizes[i] * sigmoid(logOddsActive(a, p)));
    return text(terms.reduce((sum, term) => sum + term, 0));
  },
  dense_flops: (p) => (2 * p.n_in - 1 + Number(p.bias)) * p.n_out,
  conv2d_flops: (p) => {
    if (p.c_in % p.groups || p.c_out % p.groups) throw new RangeError("groups must divide both");
    const [height, width] = [0, 1].map((i) => {
      const span = p.dilation[i] * (p.kernel[i] - 1) + 1;
      return Math.floor((p.size[i] + 2 * p.padding[i] - span) / p.stride[i]) + 1;
    });
    const reads = (p.c_in / p.groups) * p.kernel[0] * p.kernel[1];
    return (2 * reads - 1 + Number(p.bias)) * p.c_out * height * width;
  },
};

function answer(request) {
  if (request.function === "hello") {
    return { result: { name: "gates in JavaScript", functions: Object.keys(functions) } };
  }
  const { beta = 1, gamma = -1, zeta = 2 } = request.args;
  try {
    if (!(beta > 0 && gamma < 0 && zeta > 1)) throw new RangeError("there is no such gate");
    return { result: functions[request.function](request.args) };
  } catch (error) {
    return { error: { type: error.name, message: error.message } };
  }
}

require("node:readline")
  .createInterface({ input: process.stdin })
  .on("line", (line) => {
    const request = JSON.parse(line);
    process.stdout.write(JSON.stringify({ id: request.id, ...answer(request) }) + "\n");
  });
