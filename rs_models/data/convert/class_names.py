"""Classes as the owners of data sets name them, in the order of their numbers."""

from __future__ import annotations

AID = (
    *("Airport", "BareLand", "BaseballField", "Beach", "Bridge", "Center", "Church"),
    *("Commercial", "DenseResidential", "Desert", "Farmland", "Forest", "Industrial", "Meadow"),
    *("MediumResidential", "Mountain", "Park", "Parking", "Playground", "Pond", "Port"),
    *("RailwayStation", "Resort", "River", "School", "SparseResidential", "Square", "Stadium"),
    *("StorageTanks", "Viaduct"),
)
RESISC = (
    *("airplane", "airport", "baseball_diamond", "basketball_court", "beach", "bridge"),
    *("chaparral", "church", "circular_farmland", "cloud", "commercial_area"),
    *("dense_residential", "desert", "forest", "freeway", "golf_course", "ground_track_field"),
    *("harbor", "industrial_area", "intersection", "island", "lake", "meadow"),
    *("medium_residential", "mobile_home_park", "mountain", "overpass", "palace", "parking_lot"),
    *("railway", "railway_station", "rectangular_farmland", "river", "roundabout", "runway"),
    *("sea_ice", "ship", "snowberg", "sparse_residential", "stadium", "storage_tank"),
    *("tennis_court", "terrace", "thermal_power_station", "wetland"),
)
UCM = (
    *("agricultural", "airplane", "baseballdiamond", "beach", "buildings", "chaparral"),
    *("denseresidential", "forest", "freeway", "golfcourse", "harbor", "intersection"),
    *("mediumresidential", "mobilehomepark", "overpass", "parkinglot", "river", "runway"),
    *("sparseresidential", "storagetanks", "tenniscourt"),
)
EUROSAT = (
    *("AnnualCrop", "Forest", "HerbaceousVegetation", "Highway", "Industrial", "Pasture"),
    *("PermanentCrop", "Residential", "River", "SeaLake"),
)
PATTERNNET = (
    *("airplane", "baseball_field", "basketball_court", "beach", "bridge", "cemetery"),
    *("chaparral", "christmas_tree_farm", "closed_road", "coastal_mansion", "crosswalk"),
    *("dense_residential", "ferry_terminal", "football_field", "forest", "freeway"),
    *("golf_course", "harbor", "intersection", "mobile_home_park", "nursing_home"),
    *("oil_gas_field", "oil_well", "overpass", "parking_lot", "parking_space", "railway"),
    *("river", "runway", "runway_marking", "shipping_yard", "solar_panel"),
    *("sparse_residential", "storage_tank", "swimming_pool", "tennis_court"),
    *("transformer_station", "wastewater_treatment_plant"),
)
WHU = (
    *("Airport", "Beach", "Bridge", "Commercial", "Desert", "Farmland", "footballField"),
    *("Forest", "Industrial", "Meadow", "Mountain", "Park", "Parking", "Pond", "Port"),
    *("railwayStation", "Residential", "River", "Viaduct"),
)
NASC = (
    *("beach", "circularfarmland", "cloud", "desert", "forest", "mountain"),
    *("rectangularfarmland", "residential", "river", "snowberg"),
)
DLRSD = (
    *("airplane", "bare soil", "buildings", "cars", "chaparral", "court", "dock", "field"),
    *("grass", "mobile home", "pavement", "sand", "sea", "ship", "tanks", "trees", "water"),
)
DIOR = (
    *("airplane", "airport", "baseballfield", "basketballcourt", "bridge", "chimney", "dam"),
    *("Expressway-Service-area", "Expressway-toll-station", "golffield", "groundtrackfield"),
    *("harbor", "overpass", "ship", "stadium", "storagetank", "tenniscourt", "trainstation"),
    *("vehicle", "windmill"),
)
DOTA = (
    *("plane", "baseball-diamond", "bridge", "ground-track-field", "small-vehicle"),
    *("large-vehicle", "ship", "tennis-court", "basketball-court", "storage-tank"),
    *("soccer-ball-field", "roundabout", "harbor", "swimming-pool", "helicopter"),
)
