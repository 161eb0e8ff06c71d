#!/usr/bin/env python3
"""The most GPU memory that can be given out in small instances, by CP-SAT (OR-Tools): one JSON instance a line on standard
input, one line of JSON for each: what was reached, and the bound that was proved.

An instance: {"card": BYTES, "nodes": [{"cpu", "memory", "cards"}], "replicas": [{"cpu", "memory", "cards", "share"}]}
"""
import json
import sys

from ortools.sat.python import cp_model

SECONDS = float(sys.argv[1]) if len(sys.argv) > 1 else 20.0


def solve(instance):
    model = cp_model.CpModel()
    nodes, replicas, unit = instance["nodes"], instance["replicas"], 1 << 20
    card = instance["card"] // unit
    gained = []
    cpu = [[] for _ in nodes]
    memory = [[] for _ in nodes]
    whole = [[] for _ in nodes]
    # A card is somebody's alone, or shared; which of a node's cards are shared does not matter, only how many.
    shared = [[model.new_bool_var("") for _ in range(node["cards"])] for node in nodes]
    parts = [[[] for _ in range(node["cards"])] for node in nodes]
    for cards in shared:
        for one, next_one in zip(cards, cards[1:]):
            model.add_implication(next_one, one)
    for replica in replicas:
        placed = []
        for n, node in enumerate(nodes):
            if replica["cpu"] > node["cpu"] or replica["memory"] > node["memory"] or replica["cards"] > node["cards"]:
                continue
            if replica["share"]:
                here = [model.new_bool_var("") for _ in shared[n]]
                for c, var in enumerate(here):
                    parts[n][c].append((var, replica["share"] // unit))
            else:
                here = [model.new_bool_var("")]
                whole[n].append((here[0], replica["cards"]))
            for var in here:
                cpu[n].append((var, replica["cpu"]))
                memory[n].append((var, replica["memory"] // unit))
                placed.append(var)
        model.add_at_most_one(placed)
        size = replica["share"] // unit if replica["share"] else replica["cards"] * card
        gained += [size * var for var in placed]
    for n, node in enumerate(nodes):
        model.add(sum(var * need for var, need in cpu[n]) <= node["cpu"])
        model.add(sum(var * need for var, need in memory[n]) <= node["memory"] // unit)
        model.add(sum(var * need for var, need in whole[n]) + sum(shared[n]) <= node["cards"])
        for c, on_card in enumerate(parts[n]):
            model.add(sum(var * need for var, need in on_card) <= card * shared[n][c])
    model.maximize(sum(gained))
    solver = cp_model.CpSolver()
    solver.parameters.max_time_in_seconds = SECONDS
    solver.parameters.num_workers = 2
    solver.parameters.random_seed = 1
    solver.solve(model)
    return {"reached": solver.objective_value * unit, "bound": solver.best_objective_bound * unit}


for line in sys.stdin:
    print(json.dumps(solve(json.loads(line))), flush=True)
