"""Load model files strictly, without running code in them."""
