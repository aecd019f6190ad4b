// SPDX-License-Identifier: Apache-2.0

package symbolize

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/lowflame/lowflame/objfile"
)

// ErrNoVDSO says that the kernel maps no vDSO into this process.
var ErrNoVDSO = errors.New("no vDSO")

// maxVDSO bounds the vDSO, which has 2 pages on x86-64.
const maxVDSO = 1 << 20

// VDSO returns the vDSO, read from the memory of this process: the kernel maps the
// same one into every 64-bit process. The object needs nothing to be kept open.
// It wraps ErrNoVDSO if there is none.
func VDSO() (*objfile.Object, error) {
	b, err := readVDSO()
	if err != nil {
		return nil, fmt.Errorf("read vDSO: %w", err)
	}
	return objfile.Open(bytes.NewReader(b), int64(len(b)))
}

func readVDSO() ([]byte, error) {
	maps, err := os.Open("/proc/self/maps")
	if err != nil {
		return nil, err
	}
	defer maps.Close()
	for sc := bufio.NewScanner(maps); sc.Scan(); {
		if !strings.HasSuffix(sc.Text(), " [vdso]") {
			continue
		}
		var begin, end int64
		if _, err := fmt.Sscanf(sc.Text(), "%x-%x", &begin, &end); err != nil {
			return nil, err
		}
		if end <= begin || end-begin > maxVDSO {
			return nil, fmt.Errorf("%x-%x: %w", begin, end, ErrNoVDSO)
		}
		mem, err := os.Open("/proc/self/mem")
		if err != nil {
			return nil, err
		}
		defer mem.Close()
		b := make([]byte, end-begin)
		_, err = mem.ReadAt(b, begin)
		return b, err
	}
	return nil, ErrNoVDSO
}
