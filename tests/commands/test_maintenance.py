"""The maintenance page and its flag."""

from __future__ import annotations

from pathlib import Path

import pytest

from fabdjango.commands import maintenance
from fabdjango.exceptions import ConfigError
from fabdjango.plan import OWNER
from tests.conftest import LAYOUT, sample_settings, sample_templates, shell, shown


def test_on_and_off() -> None:
    """The owner puts the page there first, then the flag; a flag that is there, or gone, is unchanged."""
    page = maintenance.page(sample_settings(), LAYOUT, sample_templates())
    steps = (maintenance.put_page(page), maintenance.switch_on(LAYOUT), maintenance.switch_off(LAYOUT))
    assert {step.user for step in steps} == {OWNER}
    assert shown(*steps) == shell(f"""
        # maintenance-page: write /srv/it's here/shared/maintenance.html
        replace '/srv/it'"'"'s here/shared/maintenance.html' 644 <<'EOF'
        ({len(page.content.encode())} bytes)
        EOF
        [ "$changed_files" ] || unchanged "as before"
        # maintenance-on: visitors get the maintenance page
        if [ -f '/srv/it'"'"'s here/run/maintenance' ]; then
          unchanged 'it was on'
        fi
        mkdir -p -- '/srv/it'"'"'s here/run'
        : > '/srv/it'"'"'s here/run/maintenance'
        # maintenance-off: visitors get the site
        if ! [ -e '/srv/it'"'"'s here/run/maintenance' ]; then
          unchanged 'it was off'
        fi
        rm -f -- '/srv/it'"'"'s here/run/maintenance'
    """)


def test_the_page(tmp_path: Path) -> None:
    """A plain one of ours, or the project's, filled in on the operator's side."""
    assert "<h1>Back soon</h1>" in maintenance.page(sample_settings(), LAYOUT, sample_templates()).content
    (tmp_path / "it's closed.html").write_text("{{ project }} on {{ host }}\n")
    own = sample_settings(nginx={"maintenance_page": "it's closed.html"})
    assert maintenance.page(own, LAYOUT, sample_templates(tmp_path), "web1").content == "blog on web1\n"
    with pytest.raises(ConfigError, match=r"fabdjango\.nginx\.maintenance_page: cannot read"):
        maintenance.page(own, LAYOUT, sample_templates())
