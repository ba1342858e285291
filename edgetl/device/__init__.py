"""What a device can do: profiles, the plan of a job, the doctor."""
