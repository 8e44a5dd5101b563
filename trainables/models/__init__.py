"""The models that trials train, built by `build.build` from their names."""
