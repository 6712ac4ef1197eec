"""Where the jobs of a sweep run other than on this machine: SLURM, Ray, Kubernetes."""
