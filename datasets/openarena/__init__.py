"""Posed RGB-D views of OpenArena's maps: places that people built, textured and lit, with exact depth.

The maps are installed separately (Debian: openarena-081-maps, openarena-081-textures, openarena-data,
openarena-085-data; GPL-2 or later); nothing of them is part of this package.
"""
