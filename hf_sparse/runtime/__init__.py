"""From text to n-gram ids without torch: the compiled kernel."""
