"""A cover of settings in which every pair that can occur does.

`rows` is the usual greedy construction, made deterministic: take the first pair that is not covered yet,
complete it to a row that the rules allow, choosing at each factor the value that covers most new pairs.

`factors` maps a name to its values, in the order in which they are set. Each rule is the names of some factors and
a function that says which of their combinations are defined.
"""

from itertools import combinations


def allowed(row, rules):
    """Whether no rule is broken by the factors that are set so far."""
    return all(test(*(row[f] for f in names)) for names, test in rules if all(f in row for f in names))


def pairs(row, factors):
    return {(a, row[a], b, row[b]) for a, b in combinations([f for f in factors if f in row], 2)}


def rows(factors, rules, fixed=None):
    """(rows, pairs that no allowed row holds); `fixed` pins some factors to one value."""
    fixed = fixed or {}
    values = {f: (fixed[f],) if f in fixed else factors[f] for f in factors}
    todo = [(a, x, b, y) for a, b in combinations(factors, 2) for x in values[a] for y in values[b]]
    uncovered, impossible, found = set(todo), set(), []
    for pair in todo:
        if pair not in uncovered:
            continue
        a, x, b, y = pair
        start = {**fixed, a: x, b: y}
        row = _complete(start, uncovered, factors, rules) if allowed(start, rules) else None
        if row is None:
            impossible.add(pair)
            uncovered.discard(pair)
        else:
            found.append({f: row[f] for f in factors})
            uncovered -= pairs(row, factors)
    return found, impossible


def _complete(row, uncovered, factors, rules):
    """The row with every factor set, by backtracking over values in the order of what they would cover."""
    open_factors = [f for f in factors if f not in row]
    if not open_factors:
        return row

    def gain(factor, value):
        trial = {**row, factor: value}
        return len(uncovered & {p for p in pairs(trial, factors) if factor in (p[0], p[2])})

    factor = open_factors[0]
    for value in sorted(factors[factor], key=lambda value: -gain(factor, value)):
        trial = {**row, factor: value}
        if allowed(trial, rules):
            done = _complete(trial, uncovered, factors, rules)
            if done is not None:
                return done
    return None
