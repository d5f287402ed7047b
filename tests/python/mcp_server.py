"""A server of the `mcp` package's own, on stdin and stdout."""

from mcp.server.fastmcp import FastMCP

server = FastMCP("weather", log_level="ERROR")


@server.tool()
def temperature(city: str) -> str:
    """Tell the temperature of a city."""
    if city == "Atlantis":
        raise ValueError("it is under water")
    return f"{len(city)} degrees in {city}"


if __name__ == "__main__":
    server.run("stdio")
