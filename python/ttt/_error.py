"""The exception of everything that can go wrong with input."""


class Error(RuntimeError):
    """What is wrong, where (file, tensor, field), and what to change; ``str()`` joins them."""

    def __init__(self, problem: str, where: str = "", fix: str = "") -> None:
        super().__init__(", ".join(part for part in (problem, where, fix) if part))
        self.problem = problem
        self.where = where
        self.fix = fix

    def __reduce__(self) -> tuple:
        return (Error, (self.problem, self.where, self.fix))
