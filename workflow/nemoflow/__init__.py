"""nemoflow: Nemotron 3 Super and Nano, from raw data to evaluated model."""
