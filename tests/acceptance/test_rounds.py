from pathlib import Path
import time
from fixtures.servers import SekmetServer
from tests.acceptance.house import House
async def test_x(sekmet: SekmetServer, tmp_path: Path) -> None:
    house = House(sekmet.base_url, tmp_path / "home")
    house.admit(1, 2, 3)
    t=time.perf_counter()
    async with house.open() as rounds:
        print("open", time.perf_counter()-t)
        for _ in range(3):
            t=time.perf_counter()
            print(await house.sweep(rounds), time.perf_counter()-t)
            print(house.documents(1), house.admission(1))
    print(time.perf_counter()-t)
    assert 0
