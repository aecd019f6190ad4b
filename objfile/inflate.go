// SPDX-License-Identifier: Apache-2.0

package objfile

import (
	"errors"
	"fmt"
	"io"
)

// Compressed reports whether Data has to decompress s, and the size of its bytes
// as its header claims it.
func (o *Object) Compressed(s Section) (size uint64, ok bool, err error) {
	r, err := o.Raw(s)
	if err != nil {
		return 0, false, err
	}
	z, ok, err := readCompression(s, r)
	if err != nil {
		return 0, false, err
	}
	if !ok {
		return s.Size, false, nil
	}
	return z.size, true, nil
}

// Inflate writes the bytes of a compressed section to w, without holding them, and
// returns how many there were. It fails as Data does, before it writes more than
// limit bytes, and with the error of w. It wraps ErrNotFound if s is not compressed.
func (o *Object) Inflate(w io.Writer, s Section, limit int64) (int64, error) {
	r, err := o.Raw(s)
	if err != nil {
		return 0, err
	}
	z, compressed, err := readCompression(s, r)
	if err != nil {
		return 0, err
	}
	if !compressed {
		return 0, fmt.Errorf("decompress section %.64q: %w", s.Name, ErrNotFound)
	}
	n, err := z.copy(w, limit)
	if err != nil {
		return n, fmt.Errorf("decompress section %.64q: %w", s.Name, err)
	}
	return n, nil
}

func (z compression) copy(w io.Writer, limit int64) (int64, error) {
	in := uint64(z.r.Size())
	if limit < 0 || z.size > uint64(limit) || z.size > slack+maxRatio*in {
		return 0, fmt.Errorf("%d bytes from %d: %w", z.size, in, ErrTooLarge)
	}
	r, err := z.open()
	if err != nil {
		return 0, z.error(err)
	}
	defer r.Close()
	to := &failing{w: w}
	// CopyN hides the reader's WriteTo, which knows no limit.
	n, err := io.CopyN(to, r, int64(z.size))
	if to.err != nil {
		return n, to.err
	}
	if err != nil {
		return n, z.error(err)
	}
	// The checksum is at the end.
	var more [1]byte
	if k, err := io.ReadFull(r, more[:]); k != 0 || !errors.Is(err, io.EOF) {
		if k != 0 {
			err = errors.New("more bytes than claimed")
		}
		return n, z.error(err)
	}
	return n, nil
}

// failing is a writer whose error is told from the reader's.
type failing struct {
	w   io.Writer
	err error
}

func (f *failing) Write(b []byte) (n int, err error) {
	n, err = f.w.Write(b)
	if err != nil {
		f.err = err
	}
	return n, err
}
