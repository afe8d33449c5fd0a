from charrun import Stage


class Mine(Stage):
    name = "mine"
