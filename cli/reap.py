"""`dhctl reap`: ends runs whose lease is over, from the cloud's or cluster's own lists alone."""

from __future__ import annotations

import click

from dhctl.cli import options


@click.command(epilog="Example:  dhctl reap --cloud hospital --dry-run")
@click.option(
    "--target",
    type=click.Choice(["openstack", "kubernetes"]),
    default="openstack",
    show_default=True,
    help="Where the runs live.",
)
@click.option("--cloud", metavar="NAME", help="Entry of clouds.yaml; by default what OS_CLOUD or OS_* say.")
@click.option("--context", metavar="NAME", help="Context of the kubeconfig; by default its current one.")
@click.option("--namespace", metavar="NAME", help="Only this namespace; by default all that you may list.")
@click.option("--dry-run", is_flag=True, help="Only show what would be ended.")
@click.option("--run", "run_id", metavar="ID", help="End this run, also before its lease is over.")
@options.as_json
def command(  # noqa: PLR0913, PLR0917 - click passes them by name
    target: str,
    cloud: str | None,
    context: str | None,
    namespace: str | None,
    dry_run: bool,
    run_id: str | None,
    as_json: bool,
) -> None:
    """End all runs of an OpenStack project, or of a cluster's namespaces, whose lease is over.

    Needs no record: what carries a run's mark and expiry is found in the place's own lists. For cron or a scheduled
    CI job. Exit code 5 when something is left.
    """
    from rich.console import Group

    from dhctl.cli import factory
    from dhctl.cli.console import Console
    from dhctl.cli.tables import plain_table, reaped_table
    from dhctl.infra.errors import LeftoverError
    from dhctl.infra.events import Event, Warned

    warnings: list[str] = []

    def keep(event: Event) -> None:
        """With --json there is one document, and what it must not lose are the warnings."""
        if isinstance(event, Warned):
            warnings.append(event.text)

    with Console(as_json) as console:
        report = keep if as_json else console.report
        if target == "kubernetes":
            reaper = factory.kubernetes_reaper(context, namespace, report)
        else:
            reaper = factory.openstack_reaper(cloud, report)
        found = reaper.expired(run_id)
        ended = found if dry_run else [reaper.end(run) for run in found]
    body = {"runs": [run.to_dict() for run in ended], "warnings": warnings}
    nothing = plain_table(("no run of this place is past its lease",), [])
    Console(as_json).document(body, Group(*map(reaped_table, ended)) if ended else nothing)
    left = [] if dry_run else [run.run_id for run in ended if not run.clean]
    if left:
        raise LeftoverError(f"something is left of {', '.join(left)}", "the table names it; `dhctl reap` tries again")
