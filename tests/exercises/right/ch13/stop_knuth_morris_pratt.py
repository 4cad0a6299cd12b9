# exercise: 13.2
"""An automaton for each stop string."""

class Automaton:
    def __init__(self, stop):
        self.stop, self.state, self.back = stop, 0, [0]
        for i in range(1, len(stop)):
            self.back.append(self.next(self.back[-1], stop[i]) if i > 1 or stop[0] == stop[1] else 0)

    def next(self, state, character):
        while state and self.stop[state] != character:
            state = self.back[state - 1]
        return state + (self.stop[state] == character)


class StopStrings:
    def __init__(self, stop):
        self.automata = [Automaton(text) for text in stop]
        self.held = ""

    def push(self, text):
        out = []
        for character in text:
            self.held += character
            for one in self.automata:
                one.state = one.next(one.state, character)
            done = next((a.stop for a in self.automata if a.state == len(a.stop)), None)
            if done is not None:
                out.append(self.held[: -len(done)])
                return "".join(out), done
            keep = max((a.state for a in self.automata), default=0)
            out.append(self.held[: len(self.held) - keep])
            self.held = self.held[len(self.held) - keep :]
        return "".join(out), None

    def finish(self):
        return self.held
