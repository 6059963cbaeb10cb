"""The console, in Chromium. It is a package because its tests share one browser (`conftest`)."""
