"""For those who outgrow one machine: the same functions on a Ray cluster, see `scale.ray`."""
