# SPDX-License-Identifier: BSD-3-Clause
"""Images made by blockdev-create, in cohortd or qemu-storage-daemon."""
import itertools

NUMBERS = itertools.count()


def create_job(daemon, **options):
    """Runs blockdev-create to its end; the JobInfo it left, dismissed."""
    job = f"create-{next(NUMBERS)}"
    options = {key.replace("_", "-"): value for key, value in options.items()}
    daemon.qmp.command("blockdev-create", job_id=job, options=options)
    daemon.qmp.wait_event("JOB_STATUS_CHANGE", id=job, status="concluded")
    info = next(info for info in daemon.qmp.command("query-jobs")
                if info["id"] == job)
    daemon.qmp.command("job-dismiss", id=job)
    return info


def create(daemon, **options):
    info = create_job(daemon, **options)
    assert "error" not in info, info


def file_node(path):
    return {"driver": "file", "filename": str(path)}


def create_qcow2(daemon, path, size, **options):
    """A new qcow2 image in a new file."""
    create(daemon, driver="file", filename=str(path), size=0)
    create(daemon, driver="qcow2", file=file_node(path), size=size, **options)
    return str(path)
