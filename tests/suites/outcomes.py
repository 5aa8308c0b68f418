"""A plugin for pytest: one line of JSON for each test, its name and how it ended, in the file that OUTCOMES names."""
import json
import os

worst = {}
rank = {"passed": 0, "skipped": 1, "failed": 2}


def note(name, outcome):
    if name not in worst or rank[outcome] > rank[worst[name]]:
        worst[name] = outcome


def pytest_runtest_logreport(report):
    note(report.nodeid, report.outcome)


def pytest_collectreport(report):
    if report.failed:
        note(report.nodeid, "failed")


def tell(name):
    if name in worst:
        with open(os.environ["OUTCOMES"], "a") as file:
            file.write(json.dumps([name, worst.pop(name)]) + "\n")


def pytest_runtest_logfinish(nodeid, location):
    tell(nodeid)


def pytest_sessionfinish():
    for name in list(worst):
        tell(name)
