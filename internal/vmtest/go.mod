module github.com/boxwire/boxwire/internal/vmtest

go 1.26.0

require (
	github.com/cavaliergopher/cpio v1.0.1
	github.com/ulikunitz/xz v0.5.17
	golang.org/x/sys v0.49.0
)
