"""Neutron's Linux bridge agent with one call of ebtables put right.

ebtables of Debian 12 (1.8.9 on nf_tables) refuses to delete a rule with --among-src that is named by what it says
("RULE_DELETE failed (Invalid argument)": it makes the set to compare with in the same transaction). Neutron does that
whenever it is told anew of a port that is wired already, tries again for ever, and wires no other port any more.
By its number the rule can be deleted.
"""

import sys

import neutron.cmd.eventlet  # noqa: F401  # first: it patches the standard library
from neutron.cmd.eventlet.plugins.linuxbridge_neutron_agent import main
from neutron.plugins.ml2.drivers.linuxbridge.agent import arp_protect


def delete_mac_rules(vif: str, current_rules: list[str]) -> None:
    """Deletes the allowed addresses in the chain of `vif`, last rule first: in place of _delete_vif_mac_rules."""
    chain = arp_protect._mac_chain_name(vif)
    if not arp_protect.chain_exists(chain, current_rules):
        return
    rules = [line for line in arp_protect.ebtables(["-L", chain]).splitlines() if line.startswith("-")]
    for number in range(len(rules), 0, -1):
        if "--among-src" in rules[number - 1]:
            arp_protect.ebtables(["-D", chain, str(number)])


arp_protect._delete_vif_mac_rules = delete_mac_rules
sys.argv[0] = "neutron-linuxbridge-agent"
main()
