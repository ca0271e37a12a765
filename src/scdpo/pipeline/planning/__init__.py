"""What a recipe would cost: pairs, steps, tokens, memory and time, without weights or network.

`plan_recipe` is the way in. Everything here is arithmetic on a recipe, the shape of its policy,
the hardware, and stated assumptions (`config.PlanConfig`).
"""
