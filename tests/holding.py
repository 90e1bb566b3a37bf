"""Commands that are found under way by whoever looks, however slow or fast the machine is."""


def holding(command: str, place: str) -> str:
    """Code for `python -c` that runs a command of which each process calls `place`, a name as `pkgutil.resolve_name`
    knows it, three times and then waits."""
    owner, _, name = place.rpartition(".")
    return f"""
import pkgutil, runpy, threading

owner, calls = pkgutil.resolve_name({owner!r}), []
call = owner.{name}

def held(*arguments):
    calls.append(1)
    if len(calls) > 3:
        threading.Event().wait()
    return call(*arguments)

owner.{name} = held
runpy.run_module({command!r}, run_name="__main__", alter_sys=True)
"""
