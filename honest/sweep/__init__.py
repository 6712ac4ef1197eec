"""Many runs of one config that differ in some of its values, and where they are run."""
