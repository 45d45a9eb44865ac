// Package file replaces files as a whole.
package file

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
)

// Replace replaces a file with one that has the text. Whoever reads it sees the old one or the new one, after a crash too.
func Replace(path string, text []byte, mode fs.FileMode) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, f.Close(), os.Remove(f.Name()))
		}
	}()
	if _, err := f.Write(text); err != nil {
		return err
	}
	if err := errors.Join(f.Chmod(mode), f.Sync()); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return err
	}
	_ = f.Close()
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return nil // the rename is done; only a crash right now could undo it
	}
	defer dir.Close()
	_ = dir.Sync()
	return nil
}
