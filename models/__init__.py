"""The shared encoder, its heads, and what trains them."""
