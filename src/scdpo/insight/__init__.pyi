from .credit import step_scores as step_scores
from .finding import Finding as Finding
from .labels import oracle as oracle
from .rewards import SolutionRewards as SolutionRewards
from .rewards import token_rewards as token_rewards
