"""Many runs of one config that differ in what a sweep file says: what `honest sweep` checks, runs and tells."""
