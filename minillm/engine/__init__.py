"""Chapter 8: requests, the scheduler, the runner, and the step that joins them."""
