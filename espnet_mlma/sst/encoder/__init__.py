"""Speech encoders of the translator, and the adapter behind them."""
