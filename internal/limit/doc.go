// Package limit names the limits of the kernel that ENOSPC and EMFILE stand for.
package limit
