"""A deployment on a Ray cluster: Ray Serve places, restarts and scales workers, the gateway asks them itself."""
