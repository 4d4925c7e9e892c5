"""Networks, and models that were trained elsewhere: what they take, what they give, how they are scored."""
