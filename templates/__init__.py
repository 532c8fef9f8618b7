"""Templates that are rendered onto servers; a package only so that the wheel carries them."""
