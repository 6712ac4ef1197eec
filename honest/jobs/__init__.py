"""Runs that are launched side by side: a bounded pool, and the engines that start what it is given."""
