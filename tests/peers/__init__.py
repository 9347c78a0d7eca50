"""The package held against other libraries, each test skipped where its library is missing."""
