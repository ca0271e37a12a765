from .credit import step_scores as step_scores
from .finding import Finding as Finding
from .labels import oracle as oracle
from .rewards import SolutionRewards as SolutionRewards
from .rewards import token_rewards as token_rewards
from .study import TemperatureStudy as TemperatureStudy
from .study import read_study as read_study
from .temperature import TemperatureLine as TemperatureLine
