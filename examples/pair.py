def f():
    return (1, "Hi")
