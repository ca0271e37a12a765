from .extraction import final_answer as final_answer
from .grader import Grader as Grader
from .grader import GradingConfig as GradingConfig
from .judging import Claim as Claim
from .judging import Judgement as Judgement
from .judging import grade as grade
from .judging import grade_async as grade_async
from .judging import judge as judge
