"""What install.sh put on this host, on record, and how it is taken back.

A rollout is one run of install.sh that changed something. It lays all its files into a stage first; `stage` compares them
with the host, keeps what would be overwritten, writes the record, and only then changes the host. `rollback` goes back by
the newest record, or by all of them. Every step may be repeated, so what was killed is finished by calling again.

install.sh runs this package itself, before there is any environment, so it imports the standard library alone. Records are
in the installation's own folder, not in the state: root acts on them, and the state belongs to the user that cycles run as.
"""
