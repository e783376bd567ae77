"""The bridge over HTTP: the wire's methods, threads as event streams, health, metrics and their description."""
