"""What any method of this kind trains with: optimizers, schedules, replicas."""
