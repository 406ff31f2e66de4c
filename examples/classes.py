"""Inheritance, properties, super() and its class cell, annotations."""


class Shape:
    """A figure with a name."""

    name: str = "shape"
    sides: int
    made = 0

    def __init__(self, *, name: str = None) -> None:
        self.name = name or type(self).__name__.lower()
        Shape.made += 1

    def __repr__(self) -> str:
        return f"<{self.name}: {self.area:.2f}>"

    @property
    def area(self) -> float:
        raise NotImplementedError


class Rectangle(Shape):
    sides = 4

    def __init__(self, width: float, height: float, **options) -> None:
        super().__init__(**options)
        self.width, self.height = width, height

    @property
    def area(self) -> float:
        return self.width * self.height


class Square(Rectangle):
    def __init__(self, side: float) -> None:
        super().__init__(side, side)

    @classmethod
    def unit(cls):
        return cls(1.0)
