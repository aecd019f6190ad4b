module github.com/lowflame/lowflame

go 1.26
