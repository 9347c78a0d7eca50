"""What `l0ref.oracle.generate` makes the vectors with: the equations again, in proven digits."""
