// Hard concrete gates in JavaScript, over JSON lines: l0ref check "command: node javascript.js"
// Functions and arguments: l0ref.oracle.interface. Messages: l0ref.oracle.protocol.
"use strict";

const sigmoid = (t) => 1 / (1 + Math.exp(-t));
const clip = (s) => Math.min(1, Math.max(0, s));
const logOddsActive = (a, p) => a - p.beta * Math.log(-p.gamma / p.zeta); // Eq. 12
const stretch = (s, p) => s * (p.zeta - p.gamma) + p.gamma;
const concrete = (a, u, p) => sigmoid((Math.log(u) - Math.log1p(-u) + a) / p.beta); // Eq. 10
const slope = (s, p) => // not 0 for NaN, which stays NaN
  stretch(s, p) <= 0 || stretch(s, p) >= 1 ? 0 : ((p.zeta - p.gamma) * s * (1 - s)) / p.beta;

// Arrays are {dtype, shape, data}, and NaN and infinities are strings in JSON.
const read = (v) => Number(String(v).replace("inf", "Infinity"));
const write = (v) => (Number.isFinite(v) ? v : String(v).replace("Infinity", "inf").toLowerCase());
function elementwise(f, first, ...others) {
  const round = first.dtype === "float32" ? Math.fround : Number;
  const at = (v, i) => f(read(v), ...others.map((other) => read(other.data[i])));
  return { ...first, data: first.data.map((v, i) => write(round(at(v, i)))) };
}

const functions = {
  prob_active: (p) => elementwise((a) => sigmoid(logOddsActive(a, p)), p.log_alpha),
  sample: (p) => elementwise((a, u) => clip(stretch(concrete(a, u, p), p)), p.log_alpha, p.u),
  sample_vjp: (p) =>
    elementwise((a, u, dz) => dz * slope(concrete(a, u, p), p), p.log_alpha, p.u, p.dz),
  test_time: (p) => elementwise((a) => clip(stretch(sigmoid(a), p)), p.log_alpha), // Eq. 13
  expected_l0: (p) => {
    const term = (a, i) => p.group_size.data[i] * sigmoid(logOddsActive(a, p));
    return write(p.log_alpha.data.map(read).map(term).reduce((sum, one) => sum + one, 0));
  },
  dense_flops: (p) => (2 * p.n_in - 1 + Number(p.bias)) * p.n_out,
};

const hello = { name: "gates in JavaScript", functions: Object.keys(functions) };
require("node:readline").createInterface({ input: process.stdin }).on("line", (line) => {
  const { id, function: name, args } = JSON.parse(line);
  const answer = { id };
  try {
    if (args.beta <= 0 || args.gamma >= 0 || args.zeta <= 1) throw new RangeError("no such gate");
    answer.result = name === "hello" ? hello : functions[name](args);
  } catch (error) {
    answer.error = { type: error.name, message: error.message };
  }
  console.log(JSON.stringify(answer));
});
