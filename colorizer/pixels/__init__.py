"""Arrays and bytes: colour spaces, pictures, the guided filter and metrics. No network in sight."""
