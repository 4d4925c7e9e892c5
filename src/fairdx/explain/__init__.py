"""Where a frozen model looks: maps, their overlap against a null, counterfactuals, and what the mask adds."""
