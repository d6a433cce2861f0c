"""How processes that run the tests side by side share them."""

LONGEST = ("test_peer_suite.py", "test_torch_dkm_accuracy.py", "test_runtime_models.py")  # one that came last would be waited for


def shared(items, folder):
    """The tests of one file after another, whichever no other process with this folder has begun: fixtures are a file's."""
    files = {}
    for item in items:
        files.setdefault(item.path.name, []).append(item)
    for name in sorted(files, key=lambda name: (name not in LONGEST, -len(files[name]), name)):
        try:
            (folder / name).touch(exist_ok=False)
        except FileExistsError:
            continue
        yield from files[name]
