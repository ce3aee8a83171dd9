"""The aiohttp front end that every replica has."""
